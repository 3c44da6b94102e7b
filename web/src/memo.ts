// A part that is drawn anew only if what it is made of has changed.
import { Component, h } from "preact";
import type { ComponentType, VNode } from "preact";

export function memo<P extends object>(
  Part: (props: P) => VNode,
  isSame: (before: P, after: P) => boolean = shallow,
): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      return !isSame(this.props as P, next as P);
    }

    override render(): VNode {
      return h(Part as ComponentType<object>, this.props as object);
    }
  } as unknown as ComponentType<P>;
}

function shallow<P extends object>(before: P, after: P): boolean {
  const names = Object.keys(after) as (keyof P)[];
  return (
    names.length === Object.keys(before).length &&
    names.every((name) => before[name] === after[name])
  );
}
