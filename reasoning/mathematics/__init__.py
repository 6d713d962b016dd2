"""Reading mathematical answers and deciding whether two of them mean the same."""
