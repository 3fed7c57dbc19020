"""What the relay promises about mail it has said 250 to, proved against crashes of every kind."""
