"""What there is to run: ``python -m charrnn`` lists the programs."""

PROGRAMS = {
    "python train.py": "train a model on a text",
    "python sample.py": "write with it",
    "python -m charrnn.eval": "how well it predicts a text, and a page of its surprise",
    "python -m charrnn.curves": "a page of how its loss fell",
    "python -m charrnn.neurons": "a page of what its units follow",
    "python -m charrnn.share": "a page that writes by itself, to give to others",
}


def main() -> None:
    """Print the list."""
    width = max(map(len, PROGRAMS))
    print("\n".join(f"{program:{width}}  {what}" for program, what in PROGRAMS.items()))
    print("\nEach explains its flags with --help.")


if __name__ == "__main__":
    main()
