"""Tables: rows as Example records, to and from frames; pixels sampled into rows."""
