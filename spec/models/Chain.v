(* The chain of HMACs against an attacker that holds any number of tokens (spec, "Chain", "Keys", "Third-party
   caveats"). Proved: what it can present extends what was issued, and every request that it gets through lies within an
   issued token's authority, discharges included.

   Terms stand for bytes, and two terms are equal only if they are spelled alike. Not modelled: bits, time, guessing,
   signatures by holders, pairwise keys. *)

From Coq Require Import List.
Import ListNotations.

Inductive label := Generator | Audience | State | LinkId | Zero.

Inductive term :=
| Label (l : label)               (* public constants *)
| Name (n : nat)                  (* public texts: identifiers, links, audiences *)
| Ticket (n : nat)                (* the cid of third-party caveat n: only the discharger can open its box *)
| Key (n : nat)                   (* root keys *)
| CaveatKey (n : nat)             (* what the box of ticket n holds *)
| Mac (key message : term)
| Hash (message : term)
| Seal (key content : term)       (* a secret box *)
| Pair (first second : term).

(* --- tokens --- *)

Definition derive key := Mac (Label Generator) key.

(* The application key that a root record points to: the root key, or that of one audience. *)
Definition application_key (key : nat) (audience : option nat) :=
  match audience with
  | None => Key key
  | Some a => Mac (Key key) (Pair (Label Audience) (Name a))
  end.

Record origin := { key : nat; audience : option nat; identifier : nat }.

Definition start o := Mac (derive (application_key (key o) (audience o))) (Name (identifier o)).

Inductive link :=
| Own (n : nat)                   (* a link that the verifier judges *)
| Asks (n : nat).                 (* third-party caveat n *)

Definition vid tag n := Seal tag (derive (CaveatKey n)).

Definition third_party tag a b := Mac tag (Pair (Mac tag a) (Mac tag b)).

Definition extend tag l :=
  match l with
  | Own n => Mac tag (Name n)
  | Asks n => third_party tag (vid tag n) (Ticket n)
  end.

Definition chain first links := fold_left extend links first.
Definition tag o links := chain (start o) links.

(* A discharge is a chain under the caveat key, with the cid as its identifier; it is bound to the last tag of a token. *)
Definition answer n links := chain (Mac (derive (CaveatKey n)) (Ticket n)) links.
Definition bind token discharge := third_party (Label Zero) token discharge.

Section Attacker.

  (* What has happened; nothing is assumed of it. *)
  Variable issued : origin -> list link -> Prop.                      (* tokens that the attacker was given, or stole *)
  Variable stolen : nat -> Prop.                                      (* root keys that it has *)
  Variable given : nat -> nat -> Prop.                                (* audience keys that it has: root key, audience *)
  Variable lost : nat -> Prop.                                        (* caveat keys that it has *)
  Variable answered : nat -> list link -> Prop.                       (* discharges that it has, not bound yet *)
  Variable shown : origin -> list link -> nat -> list link -> Prop.   (* discharges that it saw, bound to a token *)

  Inductive knows : term -> Prop :=
  | k_label l : knows (Label l)
  | k_name n : knows (Name n)
  | k_ticket n : knows (Ticket n)
  | k_stolen k : stolen k -> knows (Key k)
  | k_given k a : given k a -> knows (application_key k (Some a))
  | k_lost n : lost n -> knows (CaveatKey n)
  | k_issued o ls : issued o ls -> knows (tag o ls)
  | k_vid o before n after : issued o (before ++ Asks n :: after) -> knows (vid (tag o before) n)
  | k_answered n ls : answered n ls -> knows (answer n ls)
  | k_shown o ls n ds : shown o ls n ds -> knows (bind (tag o ls) (answer n ds))
  | k_published l t : knows (Hash (Pair (Label l) t))                 (* every state and link id there is *)
  | k_mac k m : knows k -> knows m -> knows (Mac k m)
  | k_hash m : knows m -> knows (Hash m)
  | k_seal k m : knows k -> knows m -> knows (Seal k m)
  | k_open k m : knows (Seal k m) -> knows k -> knows m
  | k_pair a b : knows a -> knows b -> knows (Pair a b)
  | k_first a b : knows (Pair a b) -> knows a
  | k_second a b : knows (Pair a b) -> knows b.

  (* Origins whose key the attacker does not have. *)
  Definition safe o :=
    ~ stolen (key o) /\ match audience o with None => True | Some a => ~ given (key o) a end.

  (* Third-party caveats whose key is not lost, and above which the attacker has no token. *)
  Definition guarded n :=
    ~ lost n /\
    forall o before after, issued o (before ++ Asks n :: after) ->
      safe o /\ forall p q, before = p ++ q -> ~ issued o p.

  (* --- a bound on what the attacker knows --- *)

  Inductive handed_out : term -> Prop :=
  | h_given k a : given k a -> handed_out (application_key k (Some a))
  | h_issued o ls : issued o ls -> handed_out (tag o ls)
  | h_answered n ls : answered n ls -> handed_out (answer n ls)
  | h_shown o ls n ds : shown o ls n ds -> handed_out (bind (tag o ls) (answer n ds)).

  (* Closed under everything the attacker can do, and read off the term. A box is harmless if whoever can open it may
     know what is in it. *)
  Fixpoint may (t : term) : Prop :=
    match t with
    | Label _ | Name _ | Ticket _ | Hash _ => True
    | Key k => stolen k
    | CaveatKey n => ~ guarded n
    | Mac k m => handed_out t \/ (may k /\ may m)
    | Seal k m => may k -> may m
    | Pair a b => may a /\ may b
    end.

  (* --- chains are spelled in one way --- *)

  Lemma chain_snoc first ls l : chain first (ls ++ [l]) = extend (chain first ls) l.
  Proof. unfold chain. now rewrite fold_left_app. Qed.

  (* The first tag of a chain: an HMAC under a derived key. *)
  Definition starts t := exists k m, t = Mac (derive k) m.

  Lemma start_starts o : starts (start o).
  Proof. now do 2 eexists. Qed.

  Lemma answer_starts n : starts (Mac (derive (CaveatKey n)) (Ticket n)).
  Proof. now do 2 eexists. Qed.

  (* No tag has a label or a root key for its key, as what is derived, bound or of an audience has. *)
  Lemma chain_shape first ls : starts first -> exists k m n, chain first ls = Mac (Mac k m) n.
  Proof.
    intros (k & m & ->). induction ls as [|l ls (a & b & c & E)] using rev_ind.
    - now do 3 eexists.
    - rewrite chain_snoc, E. destruct l; now do 3 eexists.
  Qed.

  Lemma extend_injective t l t' l' : extend t l = extend t' l' -> t = t' /\ l = l'.
  Proof. destruct l, l'; intro E; inversion E; auto. Qed.

  Lemma start_extends_nothing first first' ls l : starts first -> starts first' -> first <> extend (chain first' ls) l.
  Proof.
    intros (k & m & ->) S E. destruct (chain_shape first' ls S) as (a & b & c & E'). rewrite E' in E.
    destruct l; inversion E.
  Qed.

  Lemma chain_injective first ls first' ls' :
    starts first -> starts first' -> chain first ls = chain first' ls' -> first = first' /\ ls = ls'.
  Proof.
    intros S S'. revert ls'. induction ls as [|l ls IH] using rev_ind; intro ls';
      destruct ls' as [|l' ls' _] using rev_ind; rewrite ?chain_snoc; intro E.
    - auto.
    - now apply start_extends_nothing in E.
    - symmetry in E. now apply start_extends_nothing in E.
    - apply extend_injective in E as [E ->]. now apply IH in E as [-> ->].
  Qed.

  Lemma start_injective o o' : start o = start o' -> o = o'.
  Proof.
    destruct o as [k a i], o' as [k' a' i']. unfold start, derive, application_key; simpl.
    destruct a, a'; intro E; inversion E; reflexivity.
  Qed.

  (* --- what may be known of a chain --- *)

  (* A chain that may be known extends one that was handed out, or its first tag could be made. *)
  Lemma chain_origin first ls :
    starts first -> may (chain first ls) ->
    (exists pre post, ls = pre ++ post /\ handed_out (chain first pre)) \/
    (exists k m, first = Mac k m /\ may k /\ may m).
  Proof.
    intros S. induction ls as [|l ls IH] using rev_ind; intro M.
    - destruct S as (k & m & ->). destruct M as [H | M].
      + left. now exists [], [].
      + right. now exists (derive k), m.
    - assert (C : handed_out (chain first (ls ++ [l])) \/ may (chain first ls)).
      { rewrite chain_snoc in *. destruct l; simpl in M; destruct M; tauto. }
      destruct C as [H | M'].
      + left. exists (ls ++ [l]), []. now rewrite app_nil_r.
      + destruct (IH M') as [(pre & post & -> & H) | H]; auto.
        left. exists pre, (post ++ [l]). now rewrite app_assoc.
  Qed.

  Lemma tag_shape o ls : exists k m n, tag o ls = Mac (Mac k m) n.
  Proof. apply chain_shape, start_starts. Qed.

  Lemma answer_shape n ls : exists k m x, answer n ls = Mac (Mac k m) x.
  Proof. apply chain_shape, answer_starts. Qed.

  Ltac by_shape :=
    match goal with
    | E : context [tag ?o ?ls] |- _ => destruct (tag_shape o ls) as (? & ? & ? & S); rewrite S in E; discriminate
    | E : context [answer ?n ?ls] |- _ => destruct (answer_shape n ls) as (? & ? & ? & S); rewrite S in E; discriminate
    end.

  Lemma handed_tag o ls : handed_out (tag o ls) -> issued o ls.
  Proof.
    intro H. remember (tag o ls) as t eqn:E. destruct H as [k a _ | o' ls' H | n ls' _ | o' ls' n ds _].
    - by_shape.
    - apply chain_injective in E as [E ->]; auto using start_starts. now apply start_injective in E as ->.
    - apply chain_injective in E as [E _]; auto using start_starts, answer_starts. discriminate.
    - by_shape.
  Qed.

  Lemma handed_answer n ds : handed_out (answer n ds) -> answered n ds.
  Proof.
    intro H. remember (answer n ds) as t eqn:E. destruct H as [k a _ | o ls _ | n' ds' H | o ls n' ds' _].
    - by_shape.
    - apply chain_injective in E as [E _]; auto using start_starts, answer_starts. discriminate.
    - apply chain_injective in E as [E ->]; auto using answer_starts. now inversion E; subst.
    - by_shape.
  Qed.

  Lemma handed_bound o ls n ds : handed_out (bind (tag o ls) (answer n ds)) -> shown o ls n ds.
  Proof.
    intro H. remember (bind (tag o ls) (answer n ds)) as t eqn:E. unfold bind, third_party in E.
    destruct H as [k a _ | o' ls' _ | n' ds' _ | o' ls' n' ds' H].
    - discriminate.
    - by_shape.
    - by_shape.
    - unfold bind, third_party in E. injection E as E E'.
      apply chain_injective in E as [E ->]; auto using start_starts. apply start_injective in E as ->.
      apply chain_injective in E' as [E' ->]; auto using answer_starts. now inversion E'; subst.
  Qed.

  Lemma handed_label l m : handed_out (Mac (Label l) m) -> exists o ls n ds, Mac (Label l) m = bind (tag o ls) (answer n ds).
  Proof.
    intro H. remember (Mac (Label l) m) as t eqn:E. destruct H as [k a _ | o ls _ | n ds _ | o ls n ds _].
    - discriminate.
    - by_shape.
    - by_shape.
    - now exists o, ls, n, ds.
  Qed.

  Lemma may_derived x : may (derive x) -> may x.
  Proof.
    intros [H | [_ M]]; auto. apply handed_label in H as (o & ls & n & ds & E). discriminate.
  Qed.

  Lemma may_application k a :
    may (application_key k a) -> stolen k \/ match a with None => False | Some a => given k a end.
  Proof.
    destruct a as [a|]; simpl; auto. intros [H | [M _]]; auto. right.
    remember (Mac (Key k) (Pair (Label Audience) (Name a))) as t eqn:E.
    destruct H as [k' a' H | o ls _ | n ds _ | o ls n ds _]; try by_shape. now inversion E; subst.
  Qed.

  Lemma may_unforgeable o ls : safe o -> may (tag o ls) -> exists pre post, ls = pre ++ post /\ issued o pre.
  Proof.
    intros [NS NG] M. destruct (chain_origin _ _ (start_starts o) M) as [(pre & post & -> & H) | (k & m & E & Mk & _)].
    - exists pre, post. auto using handed_tag.
    - injection E as <- _. exfalso. apply may_derived, may_application in Mk as [St | G]; auto.
      destruct (audience o); auto.
  Qed.

  Lemma may_answer n ds : guarded n -> may (answer n ds) -> exists pre post, ds = pre ++ post /\ answered n pre.
  Proof.
    intros G M. destruct (chain_origin _ _ (answer_starts n) M) as [(pre & post & -> & H) | (k & m & E & Mk & _)].
    - exists pre, post. auto using handed_answer.
    - injection E as <- _. now apply may_derived in Mk.
  Qed.

  (* Boxes of caveats that are guarded do not open. *)
  Lemma may_vid o before n after : issued o (before ++ Asks n :: after) -> may (vid (tag o before) n).
  Proof.
    intros H M. right. split; [exact I |]. intros [_ G]. apply G in H as [S N].
    apply (may_unforgeable o before S) in M as (p & q & E & H). exact (N p q E H).
  Qed.

  Lemma knows_may t : knows t -> may t.
  Proof.
    induction 1; simpl; auto.
    - left. now apply (h_given k a).
    - now intros [N _].
    - destruct (tag_shape o ls) as (k & m & x & E). rewrite E. left. rewrite <- E. now apply h_issued.
    - now apply may_vid in H.
    - destruct (answer_shape n ls) as (k & m & x & E). rewrite E. left. rewrite <- E. now apply h_answered.
    - left. now apply h_shown in H.
    - simpl in IHknows. tauto.
    - simpl in IHknows. tauto.
  Qed.

  (* --- theorems --- *)

  (* A token that the attacker can present extends one that it was given, unless it has the key. *)
  Theorem unforgeable o ls : safe o -> knows (tag o ls) -> exists pre post, ls = pre ++ post /\ issued o pre.
  Proof. auto using may_unforgeable, knows_may. Qed.

  (* A discharge that it can present, bound to a token, was seen with just that token, or extends one that it has. *)
  Theorem discharge_unforgeable o ls n ds :
    guarded n -> knows (bind (tag o ls) (answer n ds)) ->
    shown o ls n ds \/ exists pre post, ds = pre ++ post /\ answered n pre.
  Proof.
    intros G K. apply knows_may in K as [H | [_ [_ M]]].
    - left. now apply handed_bound.
    - right. apply may_answer; auto. destruct M as [H | [_ M]]; auto.
      apply handed_label in H as (o' & ls' & n' & ds' & E). injection E as E. by_shape.
  Qed.

  (* What requests are, and when a link holds for one. *)
  Variable request : Type.
  Variable holds : nat -> request -> Prop.

  Definition all_hold ls r := forall c, In (Own c) ls -> holds c r.

  Definition discharged o ls n r := exists ds, knows (bind (tag o ls) (answer n ds)) /\ all_hold ds r.

  (* What a verifier takes: the chain, every link, and for each third-party caveat a bound discharge. *)
  Definition accepts o ls r :=
    knows (tag o ls) /\ all_hold ls r /\ forall n, In (Asks n) ls -> discharged o ls n r.

  (* Within the authority of a token: its links hold, and its guarded caveats have answers that hold, each either in the
     attacker's hands or seen with just the token that is presented. *)
  Definition within o pre ls r :=
    all_hold pre r /\
    forall n, In (Asks n) pre -> guarded n -> exists ds, (answered n ds \/ shown o ls n ds) /\ all_hold ds r.

  Theorem confinement o ls r : safe o -> accepts o ls r -> exists pre, issued o pre /\ within o pre ls r.
  Proof.
    intros S (K & H & D). destruct (unforgeable _ _ S K) as (pre & post & -> & I).
    exists pre. repeat split; auto.
    - intros c C. apply H, in_or_app. auto.
    - intros n A G. destruct (D n) as (ds & Kd & Hd); [apply in_or_app; auto |].
      destruct (discharge_unforgeable _ _ _ _ G Kd) as [Sh | (p & q & -> & An)].
      + exists ds. auto.
      + exists p. split; auto. intros c C. apply Hd, in_or_app. auto.
  Qed.

  (* The other way round, so that `accepts` is not empty: what was issued and answered is taken. *)
  Theorem honest_use o ls r :
    issued o ls -> all_hold ls r -> (forall n, In (Asks n) ls -> exists ds, answered n ds /\ all_hold ds r) ->
    accepts o ls r.
  Proof.
    intros I H D. repeat split; auto using k_issued. intros n A. destruct (D n A) as (ds & An & Hd).
    exists ds. split; auto. unfold bind, third_party.
    auto using k_mac, k_pair, k_label, k_issued, k_answered.
  Qed.

  (* And any holder can add a link. *)
  Theorem narrowing o ls c : knows (tag o ls) -> knows (tag o (ls ++ [Own c])).
  Proof. intro K. unfold tag. rewrite chain_snoc. now apply k_mac; [| apply k_name]. Qed.
End Attacker.
