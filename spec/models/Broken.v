(* What falls when one thing is taken away from Chain.v: its theorems have content, and each hypothesis is needed. *)

From Coq Require Import List.
Import ListNotations.
Require Import Chain.

Definition nothing {A : Type} (_ : A) := False.
Definition nothing2 {A B : Type} (_ : A) (_ : B) := False.
Definition nothing4 {A B C D : Type} (_ : A) (_ : B) (_ : C) (_ : D) := False.

(* An attacker that was given nothing at all. *)
Definition stranger := knows nothing2 nothing nothing2 nothing nothing2 nothing4.

(* A chain of hashes without a key: everybody makes every token. *)
Definition plain id links := fold_left (fun t n => Hash (Pair t (Name n))) links (Hash (Name id)).

Theorem plain_forgeable id links : stranger (plain id links).
Proof.
  unfold stranger, plain. induction links as [|n links IH] using rev_ind; simpl.
  - apply k_hash, k_name.
  - rewrite fold_left_app. apply k_hash, k_pair; auto using k_name.
Qed.

(* The other way round: there are guarded caveats. The attacker has one token, which asks one third party. *)
Definition one_token (o o' : origin) links := o' = o /\ links = [Asks 0].

Theorem guarded_possible o : guarded (one_token o) nothing nothing2 nothing 0.
Proof.
  split; [intros [] |]. intros o' before after [-> E]. destruct before as [|l before].
  - split.
    + split; [intros [] | destruct (audience o); auto; intros []].
    + intros p q E' [_ ->]. discriminate.
  - injection E as _ E. now destruct before.
Qed.

Section Attacker.
  Variable issued : origin -> list link -> Prop.
  Variable stolen : nat -> Prop.
  Variable given : nat -> nat -> Prop.
  Variable lost : nat -> Prop.
  Variable answered : nat -> list link -> Prop.
  Variable shown : origin -> list link -> nat -> list link -> Prop.

  Let knows := knows issued stolen given lost answered shown.

  Lemma first_tag_suffices o links : knows (start o) -> knows (tag o (map Own links)).
  Proof.
    intro K. induction links as [|n links IH] using rev_ind; auto. rewrite map_app. now apply narrowing.
  Qed.

  Lemma application_key_suffices o : knows (application_key (key o) (audience o)) -> knows (start o).
  Proof. intro K. apply k_mac; [apply k_mac |]; auto; [apply k_label | apply k_name]. Qed.

  (* Without "the root key is not stolen". *)
  Theorem stolen_forgeable o links : stolen (key o) -> knows (tag o (map Own links)).
  Proof.
    intro S. apply first_tag_suffices, application_key_suffices. destruct (audience o) as [a|].
    - apply k_mac; [now apply k_stolen | apply k_pair; [apply k_label | apply k_name]].
    - now apply k_stolen.
  Qed.

  (* Without "nor is the key of the audience". *)
  Theorem given_forgeable o a links : audience o = Some a -> given (key o) a -> knows (tag o (map Own links)).
  Proof.
    intros A G. apply first_tag_suffices, application_key_suffices. rewrite A. now apply k_given.
  Qed.

  (* Without "the attacker has no token above the caveat": it opens the vid, and answers itself. *)
  Theorem above_forgeable o before n after :
    issued o before -> issued o (before ++ Asks n :: after) -> knows (answer n []).
  Proof.
    intros B I. apply k_mac; [| apply k_ticket]. apply k_open with (tag o before); [now apply k_vid with after |].
    now apply k_issued.
  Qed.

  (* Without "the caveat key is not lost". *)
  Theorem lost_forgeable n : lost n -> knows (answer n []).
  Proof. intro L. apply k_mac; [apply k_mac; [apply k_label | now apply k_lost] | apply k_ticket]. Qed.

  (* Discharges that are not bound: one that was seen with one token would go with any other. *)
  Definition unbound o links n ds := knows (tag o links) /\ knows (answer n ds).

  Theorem unbound_transferable o links o' links' n ds :
    unbound o links n ds -> knows (tag o' links') -> unbound o' links' n ds.
  Proof. intros [_ A] K. now split. Qed.

  (* With a stolen root key there are requests within the authority of no issued token at all. *)
  Theorem stolen_unconfined request (holds : nat -> request -> Prop) o r :
    stolen (key o) -> (forall links, ~ issued o links) ->
    accepts issued stolen given lost answered shown request holds o [] r /\
    ~ exists pre, issued o pre /\ within issued stolen given lost answered shown request holds o pre [] r.
  Proof.
    intros S N. split.
    - split; [now apply (stolen_forgeable o []) |]. split; intros ? [].
    - intros (pre & I & _). exact (N pre I).
  Qed.
End Attacker.
