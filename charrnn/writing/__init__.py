"""State -> text: primes, drawing, the fast decoder, and the conversation."""
