// The answer to a question, asked again while there is more to know.
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { Answer } from "./api";

type Found = Answer & { trouble: null };

const LOOK = 250; // milliseconds between two looks at whether there is anything new

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

// One request after the other, at most one in so many milliseconds. An answer that takes longer than
// the trails take to grow is shown all the same: it is of this question.
export function useAnswer(
  q: string,
  sort: string,
  at: number | null,
  rev: string,
  every: number,
  only: "counts" | null,
): { answer: Found | null; trouble: string } {
  const of = JSON.stringify([q, sort, at, only]);
  const newest = useRef(rev);
  newest.current = rev;
  const [found, setFound] = useState<{ of: string; answer: Found | null; trouble: string } | null>(null);
  useEffect(() => {
    let isOver = false;
    const run = async (): Promise<void> => {
      while (!isOver) {
        const asked = newest.current;
        const next = performance.now() + every;
        try {
          const said = await api.query(q, sort, null, at, 1, only);
          if (isOver) return;
          setFound(
            said.trouble === null
              ? { of, answer: said, trouble: "" }
              : { of, answer: null, trouble: said.trouble },
          );
        } catch (error) {
          if (isOver) return;
          setFound({ of, answer: null, trouble: (error as Error).message });
        }
        while (!isOver && (newest.current === asked || performance.now() < next)) await pause(LOOK);
      }
    };
    void run();
    return () => {
      isOver = true;
    };
  }, [of]);
  return found?.of === of ? found : { answer: null, trouble: "" };
}
