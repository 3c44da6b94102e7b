// Decisions a page at a time. No row moves while somebody reads: what is new is offered, counted.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import type { Page, Row } from "./api";
import { plainNumber } from "./format";
import { Decisions, Press } from "./parts";

const LIMIT = 25;

// How many rows stand above the one that was first. All of them, where it is not there any more.
function newerThan(first: Row | undefined, rows: Row[]): number {
  const place = rows.findIndex((row) => row.key === first?.key);
  return place < 0 ? rows.length : place;
}

export function Paged(props: {
  of: { id: string } | { task: string } | { q: string; sort: string };
  first: Page | null;
  at: number | null;
  rev: string;
  now: number;
  caption: string;
  who?: boolean;
}): JSX.Element {
  const [refused, setRefused] = useState(false);
  const [before, setBefore] = useState<string[]>([]);
  const [page, setPage] = useState<Page | null>(props.first);
  const [newer, setNewer] = useState<Page | null>(null);
  const [trouble, setTrouble] = useState("");
  const cursor = before.at(-1) ?? null;
  const { of } = props;
  const list = JSON.stringify([of, refused, cursor, props.at]);
  const [shown, setShown] = useState(props.first ? list : "");

  useEffect(() => setBefore([]), [JSON.stringify(of), refused, props.at]);
  // A page of earlier decisions stays as it is: it is asked for once.
  const rev = cursor === null ? props.rev : "";
  useEffect(() => {
    let isOver = false;
    const asked =
      "q" in of
        ? api.query(of.q, of.sort, cursor, props.at, LIMIT, "rows")
        : api.decisions(of, cursor, refused, props.at, LIMIT);
    asked.then(
      (found) => {
        if (isOver || !("rows" in found)) return;
        setTrouble("");
        const isSame = shown === list && page !== null && page.rows.length > 0;
        if (isSame && newerThan(page.rows[0], found.rows) > 0) {
          setNewer(found);
          return;
        }
        setPage(found);
        setNewer(null);
        setShown(list);
      },
      (error: Error) => {
        if (!isOver) setTrouble(error.message);
      },
    );
    return () => {
      isOver = true;
    };
  }, [list, rev]);

  const rows: Row[] = page?.rows ?? [];
  const count = newer === null ? 0 : newerThan(rows[0], newer.rows);
  return (
    <>
      <div class="filters">
        {!("q" in of) && (
          <label class="check">
            <input
              type="checkbox"
              checked={refused}
              onChange={(event) => setRefused(event.currentTarget.checked)}
            />
            refused only
          </label>
        )}
        <span role="status">
          {count > 0 && shown === list && (
            <button
              type="button"
              class="small new"
              onClick={() => {
                setPage(newer);
                setNewer(null);
              }}
            >
              {plainNumber(count)}
              {count === newer?.rows.length && newer.next !== null && " or more"} new
            </button>
          )}
        </span>
        <span class="pager">
          <Press
            kind="small"
            off={before.length === 0}
            onPress={() => setBefore(before.slice(0, -1))}
          >
            Newer
          </Press>
          <span class="muted">page {before.length + 1}</span>
          <Press
            kind="small"
            off={!page?.next}
            onPress={() => page?.next && setBefore([...before, page.next])}
          >
            Older
          </Press>
        </span>
      </div>
      {trouble && (
        <p class="bad" role="alert">
          {trouble}
        </p>
      )}
      <Decisions rows={rows} now={props.now} caption={props.caption} who={props.who ?? false} />
    </>
  );
}
