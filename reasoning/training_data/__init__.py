"""Makes training data from samples: curated chains, a teacher's responses and step labels."""
