"""Contract suites for backends: derive a test class and implement how the backend is created."""
