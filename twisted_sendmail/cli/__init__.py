"""The `twisted-sendmail` command."""
