"""How the other rooms log: through the standard library, so that whoever embeds them decides where it goes."""
