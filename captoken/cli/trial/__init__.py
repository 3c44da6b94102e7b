"""`captoken issue serve --try`: a login, a consent page and a guarded MCP server, on this computer.

    people      a provider where two people can log in, without a password
    server      an MCP server that asks for a token, and says where to get one
    command     the policy, and all of it as one application at one port

It is for trying out. It listens on loopback alone, keeps everything in memory, and each page says
that anybody here can log in as anybody.
"""
