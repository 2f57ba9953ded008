"""Long runs over all variants, whose rows and pages are kept under .github/: one command each."""
