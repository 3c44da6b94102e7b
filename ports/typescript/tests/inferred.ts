/** Compiled, and never run: `requires` where its route is not known, in each framework, with no type written. */

import express from "express";
import fastify from "fastify";
import { Hono } from "hono";

import { requires as ofExpress } from "../src/express.js";
import { requires as ofFastify } from "../src/fastify.js";
import { requires as ofHono } from "../src/hono.js";

const apart = {
  hono: ofHono((c) => ({ tool: "read", arguments: { name: c.req.param("name"), all: c.req.query("all") } })),
  honoLater: ofHono(async (c) => ({ tool: "read", arguments: { body: await c.req.json() } })),
  express: ofExpress((request) => ({ tool: "read", arguments: { name: request.params["name"], body: request.body } })),
  fastify: ofFastify((request) => ({ tool: "read", arguments: { params: request.params, body: request.body } })),
};

new Hono().get("/reports/:name", apart.hono, apart.honoLater, (c) => c.text(c.req.param("name")));
new Hono<{ Variables: { user: string } }>().get("/a", apart.hono, (c) => c.text(c.get("user")));
new Hono().get("/reports/:name", ofHono((c) => ({ tool: "read", arguments: { name: c.req.param("name") } })), (c) => c.text("x"));
express().get("/reports/:name", apart.express, (request, response) => void response.send(request.params.name));
express().get("/reports/:name", ofExpress((request) => ({ tool: "read", arguments: { ...request.params } })));
fastify().get("/reports/:name", { preHandler: apart.fastify }, async () => "x");
fastify().get<{ Params: { name: string } }>("/b/:name", { preHandler: apart.fastify }, async (request) => request.params.name);
