"""What a run keeps and prints: its files, its log, its report."""
