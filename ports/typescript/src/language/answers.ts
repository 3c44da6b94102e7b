/** The links of discharges, as verifiers read them (spec, "Discharges"). */

import type { Packet } from "../format/packet.js";
import type { Vocabulary } from "./caveats.js";
import { isAboutRequests, readLink, type BadLink, type Link } from "./links.js";

/** The links of a discharge, or the first that it may not have (33.6). */
export function readDischarge({ caveats }: Packet, vocabulary: Vocabulary): Link[] | BadLink {
  const links: Link[] = [];
  for (const { cid } of caveats) {
    const link = readLink(cid, vocabulary);
    if (link.kind === "bad") return link;
    if (!isAboutRequests(link)) return unreadable("a discharge that speaks of the token itself");
    links.push(link);
  }
  return links.some(({ says }) => says.exp !== undefined)
    ? links
    : unreadable("a discharge without an end");
}

const unreadable = (what: string): BadLink => ({
  kind: "bad",
  code: "unreadable_link",
  text: what,
  says: {},
});
