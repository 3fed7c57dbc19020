"""Where mail goes and how: from a URL and a message to an outcome for each recipient."""
