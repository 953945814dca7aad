"""What a push worker does for the users whose home it is: it holds their streams and says what it keeps fresh."""
