"""Results that were made elsewhere: a table read, judged and shown like a study."""
