"""The files that users write: YAML with places kept, variables, targets, project discovery."""
