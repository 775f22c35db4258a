"""The learning rate of plain SGD alone: its search, with a global bound."""
