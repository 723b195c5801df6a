"""Tables, figures, model cards, explanations and reconstructions."""
