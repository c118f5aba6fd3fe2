"""C99 for devices without an operating system, made of LiteRT models and bit-exact to the LiteRT Micro interpreter."""
