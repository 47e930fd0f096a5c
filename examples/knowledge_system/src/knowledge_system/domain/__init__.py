"""Domain logic without database and web: permissions, workflow, texts, field validation."""
