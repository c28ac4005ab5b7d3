"""What is said before training: scores, gaps and alarms of sources on a target."""
