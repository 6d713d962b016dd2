"""Training data made from samples: curated chains, teachers' responses and step labels."""
