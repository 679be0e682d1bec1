"""From the files that users write to cases: suites, data sets, prompts, in every dialect."""
