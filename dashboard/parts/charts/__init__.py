"""Charts, in plain HTML or Plotly."""
