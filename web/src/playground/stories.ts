// What the page begins with, and what else can be chosen.
import type { Story } from "./story";

// With a blank behind each comma and colon; no text in a story has one.
const spelled = (value: unknown): string => JSON.stringify(value).replace(/[,:]/g, "$& ");

const mail = {
  send_mail: { to: { in: ["board@example.com"] }, text: { any: true } },
};

export const STORIES: Readonly<Record<string, Story>> = {
  "A poisoned page": {
    links: [
      {
        to: "orchestrator",
        caveats: spelled({ tables: ["*"], operations: ["select"], tools: mail }),
      },
      {
        to: "reader",
        caveats: spelled({ tables: ["filings"], tools: mail, expires_in: "5m" }),
      },
    ],
    access: spelled({
      tool: "send_mail",
      arguments: { to: "mallory@example.net", text: "All salaries." },
    }),
  },
  "A refund": {
    links: [
      {
        to: "support",
        caveats: spelled({ tools: { refund: { order: { prefix: ["A-"] }, cents: { max: 5000 } } } }),
      },
      {
        to: "clerk",
        caveats: spelled({ tools: { refund: { order: { in: ["A-7"] }, cents: { max: 900 } } } }),
      },
    ],
    access: spelled({ tool: "refund", arguments: { order: "A-7", cents: 1500 } }),
  },
  "A column": {
    links: [
      {
        to: "orchestrator",
        caveats: spelled({
          allow: { customers: ["select"], orders: ["select", "insert"] },
          columns: { customers: ["id", "city"] },
        }),
      },
    ],
    access: spelled({ table: "customers", operation: "select", columns: ["city", "income"] }),
  },
};
