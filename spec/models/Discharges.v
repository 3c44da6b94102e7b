(* Tokens as they travel, with their discharges, against the attacker of Chain.v (spec, "Discharges"). There a link that asks
   a third party has the box that its writer sealed. Here it has any two terms, since whoever holds a token can write any; and
   the verifier is what it computes: it opens each box with the tag before it, and compares.

   Proved: a discharge that is taken answers that caveat of that token, nothing else; and what is taken, with whatever
   caveats and discharges an attacker puts there, lies within an issued token and the answers to what it asks. *)

From Coq Require Import List.
Import ListNotations.
Require Import Chain.

(* --- what travels --- *)

Inductive caveat :=
| First (n : nat)                 (* a link that the verifier can read *)
| Third (vid cid : term).         (* whatever was written there *)

Definition add tag c :=
  match c with
  | First n => Mac tag (Name n)
  | Third v c => third_party tag v c
  end.

Definition grow first caveats := fold_left add caveats first.

(* A token's links as they travel. *)
Fixpoint sent tag links :=
  match links with
  | [] => []
  | Own n :: rest => First n :: sent (extend tag (Own n)) rest
  | Asks n :: rest => Third (vid tag n) (Ticket n) :: sent (extend tag (Asks n)) rest
  end.

Record discharge := { about : term; says : list nat; signature : term }.

Definition links_of d := map Own (says d).

(* --- the verifier --- *)

(* Each third-party caveat, in order, takes the next discharge. The box gives the key, and it is opened by the tag before it. *)
Fixpoint answers last tag caveats discharges :=
  match caveats with
  | [] => discharges = []
  | First n :: rest => answers last (add tag (First n)) rest discharges
  | Third v c :: rest =>
      match discharges with
      | [] => False
      | d :: others =>
          about d = c /\
          (exists k, v = Seal tag k /\ signature d = bind last (chain (Mac k c) (links_of d))) /\
          answers last (add tag (Third v c)) rest others
      end
  end.

Definition verifies o caveats tag discharges :=
  tag = grow (start o) caveats /\ answers tag (start o) caveats discharges.

(* --- chains are spelled in one way --- *)

Lemma grow_snoc first cs c : grow first (cs ++ [c]) = add (grow first cs) c.
Proof. unfold grow. now rewrite fold_left_app. Qed.

Lemma grow_sent tag ls : grow tag (sent tag ls) = chain tag ls.
Proof. revert tag. induction ls as [|[n|n] ls IH]; intro tag; simpl; auto; exact (IH _). Qed.

Lemma grow_shape first cs : starts first -> exists k m n, grow first cs = Mac (Mac k m) n.
Proof.
  intros (k & m & ->). induction cs as [|c cs (a & b & d & E)] using rev_ind.
  - now do 3 eexists.
  - rewrite grow_snoc, E. destruct c; now do 3 eexists.
Qed.

Lemma add_injective t c t' c' : add t c = add t' c' -> t = t' /\ c = c'.
Proof. destruct c, c'; intro E; inversion E; auto. Qed.

Lemma start_adds_nothing first first' cs c : starts first -> starts first' -> first <> add (grow first' cs) c.
Proof.
  intros (k & m & ->) S E. destruct (grow_shape first' cs S) as (a & b & d & E'). rewrite E' in E.
  destruct c; inversion E.
Qed.

Lemma grow_injective first cs first' cs' :
  starts first -> starts first' -> grow first cs = grow first' cs' -> first = first' /\ cs = cs'.
Proof.
  intros S S'. revert cs'. induction cs as [|c cs IH] using rev_ind; intro cs';
    destruct cs' as [|c' cs' _] using rev_ind; rewrite ?grow_snoc; intro E.
  - auto.
  - now apply start_adds_nothing in E.
  - symmetry in E. now apply start_adds_nothing in E.
  - apply add_injective in E as [E ->]. now apply IH in E as [-> ->].
Qed.

Lemma tag_injective o cs o' cs' : grow (start o) cs = grow (start o') cs' -> o = o' /\ cs = cs'.
Proof.
  intro E. apply grow_injective in E as [E ->]; auto using start_starts. apply start_injective in E. auto.
Qed.

(* A bound discharge is of one token as it was sent, one ticket and one list of caveats. *)
Theorem bound_to_one o cs n ds o' cs' n' ds' :
  bind (grow (start o) cs) (answer n ds) = bind (grow (start o') cs') (answer n' ds') ->
  o = o' /\ cs = cs' /\ n = n' /\ ds = ds'.
Proof.
  unfold bind, third_party. intro E. injection E as T A. apply tag_injective in T as [-> ->].
  apply chain_injective in A as [A ->]; auto using answer_starts. inversion A. auto.
Qed.

(* One for each caveat that asks, and none to spare. *)
Definition asks c := match c with Third _ _ => true | First _ => false end.

Theorem one_for_each last tag cs ds : answers last tag cs ds -> length ds = length (filter asks cs).
Proof.
  revert tag ds. induction cs as [|[n|v c] cs IH]; intros tag ds A; simpl in *.
  - now subst.
  - eauto.
  - destruct ds as [|d ds]; [destruct A |]. destruct A as (_ & _ & A). simpl. f_equal. eauto.
Qed.

Section Attacker.
  Variable issued : origin -> list link -> Prop.
  Variable stolen : nat -> Prop.
  Variable given : nat -> nat -> Prop.
  Variable lost : nat -> Prop.
  Variable answered : nat -> list link -> Prop.
  Variable shown : origin -> list link -> nat -> list link -> Prop.

  Let knows := knows issued stolen given lost answered shown.
  Let may := may issued stolen given lost answered shown.
  Let safe := safe stolen given.
  Let guarded := guarded issued stolen given lost.
  Let handed_out := handed_out issued given answered shown.

  (* --- what may be known of a chain as it travels --- *)

  Lemma handed_sent o cs : handed_out (grow (start o) cs) -> exists ls, cs = sent (start o) ls /\ issued o ls.
  Proof.
    intro H. remember (grow (start o) cs) as t eqn:E. destruct (grow_shape _ cs (start_starts o)) as (a & b & c & F).
    destruct H as [k a' _ | o' ls H | n ls _ | o' ls n ds _].
    - rewrite F in E. discriminate.
    - unfold tag in E. rewrite <- grow_sent in E. symmetry in E. apply tag_injective in E as [<- ->]. eauto.
    - unfold answer in E. rewrite <- grow_sent in E.
      apply grow_injective in E as [E _]; auto using start_starts, answer_starts. discriminate.
    - rewrite F in E. discriminate.
  Qed.

  Lemma may_sent o cs :
    safe o -> may (grow (start o) cs) -> exists ls post, cs = sent (start o) ls ++ post /\ issued o ls.
  Proof.
    intros S. induction cs as [|c cs IH] using rev_ind; intro M.
    - destruct (may_unforgeable issued stolen given lost answered shown o [] S M) as (pre & post & E & I).
      symmetry in E. apply app_eq_nil in E as [-> ->]. now exists [], [].
    - assert (C : handed_out (grow (start o) (cs ++ [c])) \/ may (grow (start o) cs)).
      { rewrite grow_snoc in *. destruct c; simpl in M; destruct M as [H | M]; auto; right; tauto. }
      destruct C as [H | M'].
      + apply handed_sent in H as (ls & E & I). exists ls, []. now rewrite app_nil_r.
      + destruct (IH M') as (ls & post & -> & I). exists ls, (post ++ [c]). now rewrite app_assoc.
  Qed.

  (* --- theorems --- *)

  (* Whatever was written behind it, a token that can be presented extends one that was issued. *)
  Theorem sent_unforgeable o cs :
    safe o -> knows (grow (start o) cs) -> exists ls post, cs = sent (start o) ls ++ post /\ issued o ls.
  Proof. intros S K. apply knows_may in K. now apply may_sent. Qed.

  (* A discharge that can be presented with it was seen with just this token, or extends an answer that is held. *)
  Lemma bound_unforgeable o cs n ds :
    guarded n -> knows (bind (grow (start o) cs) (answer n ds)) ->
    (exists ls, cs = sent (start o) ls /\ shown o ls n ds) \/ exists pre post, ds = pre ++ post /\ answered n pre.
  Proof.
    intros G K. apply knows_may in K as [H | [_ [_ M]]].
    - left. change (handed_out (bind (grow (start o) cs) (answer n ds))) in H.
      remember (bind (grow (start o) cs) (answer n ds)) as t eqn:E.
      destruct (grow_shape _ cs (start_starts o)) as (a & b & c & F).
      destruct H as [k a' _ | o' ls _ | n' ls _ | o' ls n' ds' H]; unfold bind, third_party in E.
      + discriminate.
      + destruct (chain_shape _ ls (start_starts o')) as (? & ? & ? & S). unfold tag in E. rewrite S in E. discriminate.
      + destruct (chain_shape _ ls (answer_starts n')) as (? & ? & ? & S). unfold answer in E. rewrite S in E. discriminate.
      + unfold tag in E. rewrite <- grow_sent in E. apply bound_to_one in E as (-> & <- & -> & ->). eauto.
    - right. apply (may_answer issued stolen given lost answered shown); auto. destruct M as [H | [_ M]]; auto.
      apply handed_label in H as (o' & ls' & n' & ds' & E). injection E as E.
      destruct (chain_shape _ ds (answer_starts n)) as (? & ? & ? & S). unfold answer in E. rewrite S in E. discriminate.
  Qed.

  (* What an attacker can send: a signature, and the discharges that go with it. *)
  Definition sends s ds := knows s /\ forall d, In d ds -> knows (signature d).

  (* A caveat of an issued token is met by one of the discharges, which is for its ticket and under its key. *)
  Lemma met last tag0 ls post ds n :
    answers last tag0 (sent tag0 ls ++ post) ds -> In (Asks n) ls ->
    exists d, In d ds /\ about d = Ticket n /\ signature d = bind last (answer n (links_of d)).
  Proof.
    revert tag0 ds. induction ls as [|[m|m] ls IH]; intros tag0 ds A I; simpl in A.
    - destruct I.
    - destruct I as [E | I]; [discriminate |]. exact (IH _ _ A I).
    - destruct ds as [|d ds]; [destruct A |]. destruct A as (T & (k & V & B) & A). destruct I as [E | I].
      + injection E as ->. exists d. unfold vid in V. injection V as <-. repeat split; auto. now left.
      + destruct (IH _ _ A I) as (d' & I' & R). exists d'. split; auto. now right.
  Qed.

  (* What requests are, and when a link holds for one. *)
  Variable request : Type.
  Variable holds : nat -> request -> Prop.

  (* What a verifier takes: it can be sent, all compares, and each link holds, of the token and of every discharge. *)
  Definition takes o cs s ds r :=
    sends s ds /\ verifies o cs s ds /\
    (forall n, In (First n) cs -> holds n r) /\ (forall d, In d ds -> forall n, In n (says d) -> holds n r).

  (* Within the authority of a token, by its links and by an answer for each caveat that is guarded: one that the attacker
     has, or one that it saw with just the token that is sent. *)
  Definition within_sent o pre cs r :=
    all_hold request holds pre r /\
    forall n, In (Asks n) pre -> guarded n ->
      exists ds, (answered n ds \/ exists ls, cs = sent (start o) ls /\ shown o ls n ds) /\ all_hold request holds ds r.

  Lemma own_is_sent tag0 ls n : In (Own n) ls -> In (First n) (sent tag0 ls).
  Proof.
    revert tag0. induction ls as [|[m|m] ls IH]; intros tag0 I; simpl in *; auto.
    - destruct I as [E | I]; [left; congruence | right; auto].
    - destruct I as [E | I]; [discriminate | right; auto].
  Qed.

  Theorem sent_confinement o cs s ds r :
    safe o -> takes o cs s ds r -> exists pre, issued o pre /\ within_sent o pre cs r.
  Proof.
    intros S ((K & Ks) & (-> & A) & H & D). destruct (sent_unforgeable _ _ S K) as (pre & post & E & I).
    exists pre. repeat split; auto.
    - intros c C. apply H. rewrite E. apply in_or_app. left. now apply own_is_sent.
    - intros n C G. assert (A' := A). rewrite E in A' at 2. destruct (met _ _ _ _ _ _ A' C) as (d & Id & _ & B).
      assert (Hd : all_hold request holds (links_of d) r).
      { intros c Ic. unfold links_of in Ic. apply in_map_iff in Ic as (m & Em & Im). injection Em as <-. eauto. }
      apply Ks in Id. rewrite B in Id. apply bound_unforgeable in Id as [(ls & El & Sh) | (p & q & El & An)]; auto.
      + exists (links_of d). split; auto. right. exists ls. auto.
      + exists p. split; auto. intros c Ic. apply Hd. rewrite El. apply in_or_app. auto.
  Qed.

  (* The other way round, so that `takes` is not empty: what was issued and answered can be sent, and is taken. *)
  Theorem sent_honestly o ls r :
    issued o ls -> all_hold request holds ls r ->
    (forall n, In (Asks n) ls -> exists says, answered n (map Own says) /\ forall c, In c says -> holds c r) ->
    exists ds, takes o (sent (start o) ls) (tag o ls) ds r.
  Proof.
    intros I H An.
    assert (B : forall tag0 ls0, (forall n, In (Asks n) ls0 -> In (Asks n) ls) ->
      exists ds, answers (tag o ls) tag0 (sent tag0 ls0) ds /\
        forall d, In d ds -> knows (signature d) /\ forall n, In n (says d) -> holds n r).
    { intros tag0 ls0. revert tag0. induction ls0 as [|[n|n] ls0 IH]; intros tag0 Sub; simpl.
      - exists []. split; auto. intros d [].
      - apply IH. intros m Im. apply Sub. now right.
      - destruct (IH (extend tag0 (Asks n))) as (ds & A & Kn); [intros m Im; apply Sub; now right |].
        destruct (An n) as (cs & Ans & Hc); [apply Sub; now left |].
        exists ({| about := Ticket n; says := cs; signature := bind (tag o ls) (answer n (map Own cs)) |} :: ds). split.
        + split; auto. split; auto. exists (derive (CaveatKey n)). auto.
        + intros d [<- | Id]; auto. split; auto. simpl. unfold bind, third_party.
          apply k_mac; [apply k_label |]. apply k_pair; apply k_mac; auto using k_label, k_issued, k_answered. }
    destruct (B (start o) ls) as (ds & A & Kn); auto. exists ds. split; [split |].
    - now apply k_issued.
    - intros d Id. now apply Kn.
    - split; [split; auto; unfold tag; now rewrite grow_sent |]. split; [| intros d Id; now apply Kn].
      intros n In_. apply H. clear - In_. revert In_. generalize (start o).
      induction ls as [|[m|m] ls IH]; intros t J; simpl in *; auto.
      + destruct J as [E | J]; [left; congruence | right; eauto].
      + destruct J as [E | J]; [discriminate | right; eauto].
  Qed.
End Attacker.
