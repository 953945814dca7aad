"""What is measured: the rows of the catalogue, by who has them, and every value that their labels can have."""
