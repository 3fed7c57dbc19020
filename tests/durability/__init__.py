"""Tests that the relay keeps its promises about accepted mail in crashes of every kind."""
