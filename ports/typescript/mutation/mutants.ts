/**
 * Mutants: programs that differ from this one in one small thing, as a mistake would.
 *
 * They are found in the syntax tree. Words for people, types and imports have none, and what the
 * compiler refuses is no mutant.
 */

import ts from "typescript";

export interface Mutant {
  /** Below `src`. */
  readonly file: string;
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** The lines that it changes, before and after, in one line each. */
  readonly was: string;
  readonly is: string;
}

/** What a file declares, and the members of its classes. */
export function declarations(
  file: string,
  source: string,
): { text: string; start: number; end: number }[] {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.ES2022, true);
  const members = tree.statements.flatMap((each) =>
    ts.isClassDeclaration(each) ? [...each.members] : [],
  );
  return [...tree.statements, ...members].map((node) => {
    const start = node.getStart(tree);
    return { text: source.slice(start, node.end), start, end: node.end };
  });
}

interface Edit {
  readonly node: ts.Node;
  readonly replacement: string;
}

const OPERATORS: Readonly<Record<string, readonly string[]>> = {
  "<": ["<=", ">="],
  "<=": ["<", ">"],
  ">": [">=", "<="],
  ">=": [">", "<"],
  "===": ["!=="],
  "!==": ["==="],
  "&&": ["||"],
  "||": ["&&"],
  "+": ["-"],
  "-": ["+"],
  "*": ["/"],
  "/": ["*"],
  "%": ["*"],
  "**": ["*"],
  "<<": [">>"],
  ">>": ["<<"],
  "&": ["|"],
  "|": ["&"],
  "^": ["&"],
  "+=": ["-="],
  "-=": ["+="],
  "|=": ["&="],
  "&=": ["|="],
  "<<=": [">>="],
  ">>=": ["<<="],
  "||=": ["&&="],
  "++": ["--"],
  "--": ["++"],
};
const METHODS: Readonly<Record<string, string>> = {
  some: "every",
  every: "some",
  min: "max",
  max: "min",
  startsWith: "endsWith",
  endsWith: "startsWith",
  indexOf: "lastIndexOf",
  lastIndexOf: "indexOf",
};
/** Which argument of these is a word for people, in what an error says. */
const TOLD: Readonly<Record<string, number>> = {
  asciiBytes: 1,
  atLeast: 2,
  bad: 0,
  badFile: 0,
  check: 0,
  count: 0,
  entriesOf: 1,
  expect: 1,
  factsOf: 1,
  filled: 0,
  given: 2,
  integer: 0,
  mapOf: 0,
  objectOf: 1,
  publicKey: 2,
  refused: 0,
  refusedOverlay: 0,
};
const DROPPED = ["filter", "sort", "slice", "normalize", "reverse", "subarray"];

/** All mutants of a file, in the order of its text. */
export function mutantsOf(file: string, source: string): Mutant[] {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.ES2022, true);
  const found: Mutant[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return;
    if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return;
    // What is only told, and how it is found.
    if (ts.isConditionalExpression(node) && isWords(node.whenTrue)) return;
    if (ts.isTemplateExpression(node) && isSaid(node)) return;
    for (const edit of editsOf(node, tree)) found.push(mutant(file, source, tree, edit));
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

function mutant(file: string, source: string, tree: ts.SourceFile, edit: Edit): Mutant {
  const [start, end] = [edit.node.getStart(tree), edit.node.getEnd()];
  const from = source.lastIndexOf("\n", start - 1) + 1;
  const behind = source.indexOf("\n", end);
  const to = behind < 0 ? source.length : behind;
  const short = (text: string): string => text.replace(/\s+/g, " ").trim();
  return {
    file,
    line: tree.getLineAndCharacterOfPosition(start).line + 1,
    start,
    end,
    replacement: edit.replacement,
    was: short(source.slice(from, to)),
    is: short(source.slice(from, start) + edit.replacement + source.slice(end, to)),
  };
}

export const changed = (source: string, { start, end, replacement }: Mutant): string =>
  source.slice(0, start) + replacement + source.slice(end);

function* editsOf(node: ts.Node, tree: ts.SourceFile): Generator<Edit> {
  yield* ofStatement(node);
  yield* ofCondition(node, tree);
  yield* ofOperator(node, tree);
  yield* ofLiteral(node);
  yield* ofCall(node, tree);
  yield* ofAnswer(node, tree);
}

/** A statement that is left out. */
function* ofStatement(node: ts.Node): Generator<Edit> {
  const isBare = ts.isReturnStatement(node) && !node.expression;
  const isJump = ts.isContinueStatement(node) || ts.isBreakStatement(node);
  const isLeft =
    (ts.isExpressionStatement(node) && !isSuper(node.expression)) ||
    ts.isThrowStatement(node) ||
    ts.isIfStatement(node);
  if (isLeft || isJump || isBare) yield { node, replacement: ";" };
}

const isSuper = (node: ts.Expression): boolean =>
  ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.SuperKeyword;

/** A condition that is always so, or never. */
function* ofCondition(node: ts.Node, tree: ts.SourceFile): Generator<Edit> {
  if (ts.isIfStatement(node)) {
    yield { node: node.expression, replacement: "true" };
    if (node.elseStatement) yield { node: node.expression, replacement: "false" };
  }
  if (ts.isWhileStatement(node)) yield { node: node.expression, replacement: "false" };
  if (ts.isConditionalExpression(node)) {
    yield { node, replacement: `(${node.whenTrue.getText(tree)})` };
    yield { node, replacement: `(${node.whenFalse.getText(tree)})` };
  }
}

function* ofOperator(node: ts.Node, tree: ts.SourceFile): Generator<Edit> {
  if (ts.isBinaryExpression(node)) {
    const operator = node.operatorToken;
    for (const other of OPERATORS[operator.getText(tree)] ?? []) {
      yield { node: operator, replacement: other };
    }
    if (operator.kind === ts.SyntaxKind.QuestionQuestionToken) {
      yield { node, replacement: `(${node.right.getText(tree)})` };
      yield { node, replacement: `(${node.left.getText(tree)})!` };
    }
  }
  if (ts.isPrefixUnaryExpression(node)) {
    const { operand, operator } = node;
    const isSign =
      operator === ts.SyntaxKind.ExclamationToken || operator === ts.SyntaxKind.MinusToken;
    if (isSign) yield { node, replacement: operand.getText(tree) };
  }
  if (ts.isPostfixUnaryExpression(node)) {
    const sign = node.operator === ts.SyntaxKind.PlusPlusToken ? "--" : "++";
    yield { node, replacement: node.operand.getText(tree) + sign };
  }
}

/** A constant that is another one. Words for people, which have spaces in them, are left alone. */
function* ofLiteral(node: ts.Node): Generator<Edit> {
  if (ts.isNumericLiteral(node)) {
    const value = Number(node.text);
    yield { node, replacement: `${value + 1}` };
    if (value > 0) yield { node, replacement: `${value - 1}` };
  }
  if (ts.isBigIntLiteral(node)) yield { node, replacement: `(${node.text} + 1n)` };
  if (node.kind === ts.SyntaxKind.TrueKeyword) yield { node, replacement: "false" };
  if (node.kind === ts.SyntaxKind.FalseKeyword) yield { node, replacement: "true" };
  const isWord = ts.isStringLiteral(node) && node.text !== "" && !isWords(node);
  if (isWord && !isName(node) && !isTold(node)) yield { node, replacement: '"?"' };
  if (ts.isRegularExpressionLiteral(node)) {
    for (const other of patternsBeside(node.text)) yield { node, replacement: other };
  }
  if (ts.isArrayLiteralExpression(node)) {
    for (const item of node.elements) {
      const left = node.elements.filter((each) => each !== item).map((each) => each.getText());
      if (!ts.isOmittedExpression(item)) yield { node, replacement: `[${left.join(", ")}]` };
    }
  }
}

const isWords = (node: ts.Node): boolean => ts.isStringLiteral(node) && node.text.includes(" ");

/** Does a template say something? One with a space has words in it, or is a label of a hash. */
const isSaid = ({ head, templateSpans }: ts.TemplateExpression): boolean =>
  [head, ...templateSpans.map(({ literal }) => literal)].some(({ text }) => text.includes(" "));

function isTold(node: ts.Expression): boolean {
  const { parent } = node;
  if (!ts.isCallExpression(parent)) return false;
  const called = parent.expression;
  const name = ts.isPropertyAccessExpression(called) ? called.name.text : called.getText();
  const isOfCaveats = name === "listOf" && node.getSourceFile().fileName.endsWith("caveats.ts");
  return parent.arguments.indexOf(node) === (isOfCaveats ? 0 : TOLD[name]);
}

/** Where text names a thing of the program and is not a value of it. */
const isName = ({ parent }: ts.Node): boolean =>
  ts.isPropertyAssignment(parent) && parent.name.kind === ts.SyntaxKind.StringLiteral
    ? parent.initializer.kind !== ts.SyntaxKind.StringLiteral
    : ts.isLiteralTypeNode(parent) || ts.isImportSpecifier(parent) || ts.isTypeOfExpression(parent);

/** The same without an anchor, or with another bound on how often. */
function patternsBeside(pattern: string): string[] {
  const made: string[] = [];
  if (pattern.startsWith("/^")) made.push(`/${pattern.slice(2)}`);
  const end = pattern.lastIndexOf("$/");
  if (end > 0) made.push(pattern.slice(0, end) + pattern.slice(end + 1));
  for (const { 0: bound, index } of pattern.matchAll(/(?<=[{,])[0-9]+(?=[,}])/g)) {
    const more = `${Number(bound) + 1}`;
    made.push(pattern.slice(0, index) + more + pattern.slice(index + bound.length));
  }
  return made;
}

/** A method for its opposite; what sorts, cuts or sifts, left out. */
function* ofCall(node: ts.Node, tree: ts.SourceFile): Generator<Edit> {
  if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return;
  const { name, expression } = node.expression;
  const other = Object.hasOwn(METHODS, name.text) ? METHODS[name.text] : undefined;
  if (other) yield { node: name, replacement: other };
  if (DROPPED.includes(name.text)) yield { node, replacement: expression.getText(tree) };
}

/** Another answer of a function. */
function* ofAnswer(node: ts.Node, tree: ts.SourceFile): Generator<Edit> {
  const isArrow = ts.isArrowFunction(node) && !ts.isBlock(node.body);
  const given = isArrow ? node.body : ts.isReturnStatement(node) ? node.expression : undefined;
  if (!given) return;
  const said = given.getText(tree);
  for (const other of ["undefined", "true", "false", "[]"]) {
    if (said !== other) yield { node: given, replacement: other };
  }
}

/** Says whether the compiler takes a file as it would be. */
export class Compiler {
  readonly #texts = new Map<string, { text: string; version: number }>();
  readonly #service: ts.LanguageService;

  constructor(root: string, files: readonly string[]) {
    const config = ts.readConfigFile(`${root}/tsconfig.json`, (path) => ts.sys.readFile(path));
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
    this.#service = ts.createLanguageService({
      getCompilationSettings: () => ({ ...options, noEmit: true, noUnusedLocals: false }),
      getScriptFileNames: () => [...files],
      getScriptVersion: (path) => `${this.#texts.get(path)?.version ?? 0}`,
      getScriptSnapshot: (path) => {
        const text = this.#texts.get(path)?.text ?? ts.sys.readFile(path);
        return text === undefined ? undefined : ts.ScriptSnapshot.fromString(text);
      },
      getCurrentDirectory: () => root,
      getDefaultLibFileName: ts.getDefaultLibFilePath,
      fileExists: (path) => ts.sys.fileExists(path),
      readFile: (path) => ts.sys.readFile(path),
      directoryExists: (path) => ts.sys.directoryExists(path),
    });
  }

  /** Leaves the file as it was. */
  takes(path: string, source: string, other: string): boolean {
    this.#put(path, other);
    const isTaken =
      this.#service.getSyntacticDiagnostics(path).length === 0 &&
      this.#service.getSemanticDiagnostics(path).length === 0;
    this.#put(path, source);
    return isTaken;
  }

  #put(path: string, text: string): void {
    this.#texts.set(path, { text, version: (this.#texts.get(path)?.version ?? 0) + 1 });
  }
}
