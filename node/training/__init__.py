"""Training: from labelled cases and a recipe to a pack of networks, with what was measured on cases held out."""
