(* What falls when one thing is taken away from Chain.v or Discharges.v: their theorems have content, and each hypothesis is
   needed. *)

From Coq Require Import List.
Import ListNotations.
Require Import Chain.
Require Import Discharges.

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

(* A link of any bytes at all: it can be spelled so that the chain is that of a third party's caveat. *)
Definition loose tag (link : term) := Mac tag link.

Theorem loose_two_ways tag v c : loose tag (Pair (Mac tag v) (Mac tag c)) = add tag (Third v c).
Proof. reflexivity. Qed.

(* A verifier that passes over a third party's caveat for which there is no discharge. *)
Fixpoint passes_over last tag caveats discharges :=
  match caveats with
  | [] => discharges = []
  | First n :: rest => passes_over last (add tag (First n)) rest discharges
  | Third v c :: rest =>
      match discharges with
      | [] => passes_over last (add tag (Third v c)) rest []
      | d :: others =>
          about d = c /\
          (exists k, v = Seal tag k /\ signature d = bind last (chain (Mac k c) (links_of d))) /\
          passes_over last (add tag (Third v c)) rest others
      end
  end.

Theorem missing_is_fine o links : passes_over (tag o links) (start o) (sent (start o) links) [].
Proof. generalize (tag o links), (start o). induction links as [|[n|n] links IH]; intros last t; simpl; auto. Qed.

(* A verifier that computes a discharge under a key which came with it, and not under the one in the box. *)
Fixpoint any_key last tag caveats discharges :=
  match caveats with
  | [] => discharges = []
  | First n :: rest => any_key last (add tag (First n)) rest discharges
  | Third v c :: rest =>
      match discharges with
      | [] => False
      | d :: others =>
          about d = c /\
          (exists k, signature d = bind last (chain (Mac k c) (links_of d))) /\
          any_key last (add tag (Third v c)) rest others
      end
  end.

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

  (* As it travels, likewise: without "the root key is not stolen". *)
  Theorem sent_stolen o links : stolen (key o) -> knows (grow (start o) (map First links)).
  Proof.
    intro S. replace (map First links) with (sent (start o) (map Own links)).
    - rewrite grow_sent. now apply stolen_forgeable.
    - generalize (start o). induction links as [|n links IH]; intro t; simpl; auto. now rewrite IH.
  Qed.

  (* With a key of its own, a discharge for any token that is held: nobody was asked. *)
  Theorem any_key_forgeable o n : knows (tag o [Asks n]) ->
    exists d, knows (signature d) /\ any_key (tag o [Asks n]) (start o) (sent (start o) [Asks n]) [d].
  Proof.
    intro K. exists {| about := Ticket n; says := []; signature := bind (tag o [Asks n]) (Mac (Name 0) (Ticket n)) |}.
    split.
    - apply k_mac; [apply k_label |].
      apply k_pair; apply k_mac; try apply k_label; auto. apply k_mac; [apply k_name | apply k_ticket].
    - simpl. repeat split; auto. now exists (Name 0).
  Qed.

  (* Where nobody asks what a discharge says, a request gets through that no answer permits. *)
  Theorem unasked_unconfined request (holds : nat -> request -> Prop) o n c r :
    guarded issued stolen given lost n -> issued o [Asks n] -> (forall links, issued o links -> links = [Asks n]) ->
    (forall links, answered n links <-> links = [Own c]) -> (forall o' links ds, ~ shown o' links n ds) -> ~ holds c r ->
    (exists ds, sends issued stolen given lost answered shown (tag o [Asks n]) ds /\
      verifies o (sent (start o) [Asks n]) (tag o [Asks n]) ds) /\
    ~ exists pre, issued o pre /\
      within_sent issued stolen given lost answered shown request holds o pre (sent (start o) [Asks n]) r.
  Proof.
    intros G I O A Sh H. split.
    - exists [{| about := Ticket n; says := [c]; signature := bind (tag o [Asks n]) (answer n [Own c]) |}]. split; [split |].
      + now apply k_issued.
      + intros d [<- | []]. simpl. apply k_mac; [apply k_label |]. apply k_pair; apply k_mac; try apply k_label.
        * now apply k_issued.
        * apply k_answered. now apply A.
      + split; auto. simpl. repeat split; auto. exists (derive (CaveatKey n)). auto.
    - intros (pre & Ip & _ & W). apply O in Ip as ->. destruct (W n) as (ds & [An | (ls & _ & X)] & Hd); auto; [now left | |].
      + apply A in An as ->. apply H, Hd. now left.
      + exact (Sh o ls ds X).
  Qed.

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
