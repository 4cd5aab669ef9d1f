"""From the bytes of a slide file to pixels at a resolution; others import ``slide`` alone."""
