"""Long runs, one command each; `faults` and `learning` keep their rows and pages under .github/."""
