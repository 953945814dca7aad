"""Users, passwords, exchange keys: the database side."""
