"""The front room: identity, order of work and OpenAI's API over the mesh."""
