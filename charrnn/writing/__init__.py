"""State -> text: primes, drawing, the fast decoder, the conversation, and likely words."""
