"""Where networks come from, a file for each family: each is a frozen value that loads what it names."""
