"""A login or a workload's identity starts a task: from who somebody is to what a task may do.

An identity provider or a platform says *who* asks, by an assertion that it signs. A policy file
says *what* such a task may do, in the keywords of `mint`. Nobody is asked again after that: agents
narrow offline, and servers verify offline.

To read it from the bottom:

- `claims`: what an assertion says, matched against what a policy wants, and the subject's name;
- `policy`: the policy file, read into typed values, or refused;
- `keys`: the keys of providers, fetched and kept;
- `identity`: an assertion, verified: who asks;
- `desk`: the decision on one request, with its effects as data.

The core imports none of this, and none of this reads a JOSE library before it is asked.
"""
