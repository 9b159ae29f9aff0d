"""Tables, figures and reports, drawn from result files of one schema."""
