"""What is counted: pure values, cheap to keep, that add up over processes. Nothing here reads a clock."""
