"""The relay: takes what is due out of the spool, delivers it, tries again, and reports."""
