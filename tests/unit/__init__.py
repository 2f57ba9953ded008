"""One module of ganzoo each."""
