"""`thriftbit mcp`: what an assistant asks of Thriftbit, through the Model Context Protocol (extra `mcp`)."""
