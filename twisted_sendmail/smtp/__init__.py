"""The language of SMTP as pure values, parsers and machines: no Twisted, sockets, files, threads or clock."""
