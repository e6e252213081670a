"""How fast does the service answer? Beside the runtime alone, LitServe and a plain handler."""
