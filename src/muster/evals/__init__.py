"""Measuring: suites of cases, graders, runs and their results."""
