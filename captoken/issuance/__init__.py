"""Issuance: a person's login or a workload's identity starts a task.

An identity provider or a platform says *who* asks, in an assertion that it signs. A policy file
says *what* such a task may do, in the keywords of `mint`. After that, agents narrow tokens offline
and servers verify them offline.

Read the modules in this order:

- `claims`: compares the claims of an assertion with a policy, and makes the subject's name;
- `policy`: reads the policy file into typed values, or refuses it;
- `keys`: fetches and keeps the keys of providers;
- `identity`: verifies an assertion;
- `desk`: decides on one request, and returns its effects as data.

The core imports none of this. A JOSE library is loaded only when it is first needed.
"""
